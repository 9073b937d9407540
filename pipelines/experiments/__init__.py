"""Experiments: many variants of the method on the same people and the same teacher's answers.

plan      which arms each experiment compares, and with what settings
chain     runs an arm through the pipeline's own steps; work that arms share is done once
measure   counts what an arm got right on the test users: the one place here that reads true labels
regimes   the votes alone, over many kinds of teachers and histories (no training)
results   Parquet of counts over seeds -> means, intervals, paired tests, JSON
page      docs/evidence.md and its plots, from the results alone
"""
