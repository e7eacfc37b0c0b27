"""Operations on clips: which frames, which tokens."""
