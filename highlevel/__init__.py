"""Public names."""
from highlevel import backends as backends
