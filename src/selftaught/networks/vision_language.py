"""x"""

from torch import nn

__all__ = ["VisionLanguageJudge"]


class VisionLanguageJudge(nn.Module): ...
