"""x"""

__all__ = ["pipeline_flow"]


def pipeline_flow(name: str, size: int) -> None: ...
