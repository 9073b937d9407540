"""What performance and quality claims are measured with. Run from a checkout; images do not hold it."""
