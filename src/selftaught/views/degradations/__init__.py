"""Degradations for restoration, as operations: noise, blur, down-sampling, compression."""
