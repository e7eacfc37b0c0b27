import torch

G = torch.Generator().manual_seed(1)
IMAGES, OTHERS = (torch.rand(2, 3, 4, 5, generator=G) for _ in range(2))
LOGITS = torch.randn(4, generator=G)
CALLS = {
    "srgan_pixel": ((IMAGES, OTHERS), {}),
    "srgan_vgg": ((IMAGES, OTHERS), {}),
    "srgan_adversarial": ((LOGITS,), {}),
    "srgan_discriminator": ((LOGITS, LOGITS + 1), {}),
    "srgan_perceptual": ((torch.tensor(0.5), LOGITS), {}),
    "total_variation": ((IMAGES,), {}),
}
