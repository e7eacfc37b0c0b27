"""Classes: a probability of each class per sample."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from selftaught.engine.method import Method
from selftaught.run import evaluating
from selftaught.run.applying import Applied, Job
from selftaught.run.outputs import _table
from selftaught.run.outputs._base import Judged
from selftaught.run.outputs.embedding import Embedding

if TYPE_CHECKING:
    from selftaught.run.bench import Bench

__all__ = ["Classes"]


class Classes(Embedding):
    """Logits (N, K) of the classes of the training data; the features below them are judged as embeddings are."""

    classifies: ClassVar[bool] = True
    headlines: ClassVar[tuple[tuple[str, str, str], ...]] = (
        ("unlearning", "balance", "forgetting and keeping"),
        ("classify", "accuracy", "accuracy"),
        *Embedding.headlines,
    )

    def apply(self, job: Job) -> Applied:
        """Columns ``class`` (its name, or its number) and ``probabilities``; .npy holds the latter, (n, K)."""

        def columns(batch: dict[str, Any]) -> dict[str, Any]:
            probabilities = job.method.predict(batch).float().softmax(1)
            likeliest = probabilities.argmax(1).tolist()
            names = [job.classes[k] if job.classes else str(k) for k in likeliest]
            return {"class": names, "probabilities": probabilities}

        return _table.write(job, columns, main="probabilities")

    def evaluate(self, bench: Bench) -> Judged:
        """The model's own classes, and all that judges an embedding."""
        return Judged(*evaluating.judge(bench, own=("classify",)))

    def card(self, method: Method, facts: dict[str, Any]) -> dict[str, Any]:
        """With the names of the classes."""
        return super().card(method, facts) | {"classes": facts.get("classes")}
