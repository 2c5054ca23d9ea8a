"""Counter-based random numbers: every draw is a function of (seed, number, purpose) alone.

Sample number 1,234 gets the same volume, crops, mask and noise whether it is drawn first, after a
resume, by another worker or on another rank; nothing has to be replayed or stored. Philox is a
counter-based generator (Salmon et al. 2011), so a new key costs microseconds.
"""

import hashlib

import numpy as np


def rng_key(seed: int, number: int, purpose: str) -> int:
    """A 128-bit key that no other (seed, number, purpose) shares, but by chance of 2^-64."""
    text = f"{seed}/{number}/{purpose}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=16).digest(), "little")


def generator(seed: int, number: int, purpose: str) -> np.random.Generator:
    """The generator of one purpose of one sample (or step, or epoch)."""
    return np.random.Generator(np.random.Philox(key=rng_key(seed, number, purpose)))
