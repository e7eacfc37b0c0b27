"""TF-IDF against scikit-learn's, a vocabulary that loads into an empty one, a transformer that padding can't change."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from selftaught import networks
from selftaught.errors import UserError

TEXTS = ["The cat sat on the mat", "a dog and the cat", "dogs run; dogs bark!", "naïve café, Straße 12"]


@pytest.mark.parametrize("ngrams", [1, 2])
def test_tfidf_is_scikit_learns(ngrams: int) -> None:
    from sklearn.feature_extraction.text import TfidfVectorizer

    mine = networks.TfIdf(200, ngrams)
    mine.vocabulary.fit(TEXTS)
    theirs = TfidfVectorizer(ngram_range=(1, ngrams)).fit(TEXTS)
    seen = [*TEXTS, "the unknown cat", ""]
    table = theirs.transform(seen).toarray()
    found = mine.vectorise(seen).numpy()
    words = mine.vocabulary.words
    assert set(words) == set(theirs.get_feature_names_out())
    order = [theirs.vocabulary_[word] for word in words]
    np.testing.assert_allclose(found[:, : len(words)], table[:, order], atol=1e-6)
    assert not found[:, len(words) :].any()


def test_a_vocabulary_is_in_the_state_dict() -> None:
    known, fresh = networks.TfIdf(3), networks.TfIdf(3)
    known.vocabulary.fit(TEXTS)
    assert known.vocabulary.words[0] == "cat"
    fresh.load_state_dict(known.state_dict())
    assert fresh.vocabulary.words == known.vocabulary.words
    torch.testing.assert_close(fresh.vectorise(TEXTS), known.vectorise(TEXTS))
    with pytest.raises(UserError, match="no vocabulary"):
        fresh.vocabulary.fit(["!", "a"])


def test_the_transformer_does_not_see_what_fills_up() -> None:
    torch.manual_seed(0)
    encoder = networks.WordTransformer(50, 12, dim=16, heads=2).eval()
    encoder.vocabulary.fit(TEXTS)
    alone = encoder(encoder.vectorise(TEXTS[:1]))
    beside = encoder(encoder.vectorise([TEXTS[0], " ".join(TEXTS)]))
    torch.testing.assert_close(alone[0], beside[0], atol=1e-5, rtol=1e-5)
    assert encoder.vectorise(["zzz"])[0, :2].tolist() == [1, 0]
    assert encoder(encoder.vectorise([""])).isfinite().all()


def test_a_saved_model_of_transformers_is_taken_from_its_folder(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "dog"]
    (tmp_path / "vocab.txt").write_text("\n".join(vocabulary))
    transformers.BertTokenizer(str(tmp_path / "vocab.txt")).save_pretrained(tmp_path)
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    transformers.BertModel(transformers.BertConfig(vocab_size=8, **sizes)).save_pretrained(tmp_path)
    encoder = networks.PretrainedText(str(tmp_path), 6).eval()
    texts = ["the cat", "the dog the cat the dog the cat"]
    plain = encoder.tokenizer(texts, return_tensors="pt", padding=True, truncation=True, max_length=6)["input_ids"]
    assert torch.equal(encoder.vectorise(texts), plain)
    assert torch.equal(encoder.vectorise([*texts[::-1], "the", texts[0]])[[1, 0]], plain)  # some are known already
    assert torch.equal(encoder.vectorise(texts[:1]), plain[:1, :4])
    found = encoder(encoder.vectorise(texts))
    assert found.shape == (2, 8)
    torch.testing.assert_close(encoder(encoder.vectorise(["the cat"]))[0], found[0], atol=1e-5, rtol=1e-5)
    (first,) = torch.autograd.grad(found.sum(), [encoder.model.embeddings.word_embeddings.weight], create_graph=True)
    weight = encoder.model.encoder.layer[0].output.dense.weight
    assert torch.autograd.grad(first.square().sum(), weight)[0].isfinite().all()
    with pytest.raises(UserError, match="not at hand"):
        networks.PretrainedText(str(tmp_path / "none"))
