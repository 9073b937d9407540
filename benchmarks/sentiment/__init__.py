"""Sentiment of short texts: the method on a task that is not user profiling, brought in as data alone."""
