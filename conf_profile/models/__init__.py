"""Models that come from outside: where to get them, in which form. Not for training or serving them."""
