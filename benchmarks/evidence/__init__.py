"""Experiments: many variants of the method on the same people and the same teacher's answers.

plan      which arms each experiment compares, and with what settings
artefacts runs of the pipeline for the arms; work that arms share is done once, and where it lies
measure   counts what an arm got right on the test users: the one place here that reads true labels
regimes   the votes alone, over many kinds of teachers and histories (no training)
results   Parquet of counts over seeds -> means, intervals, paired tests, JSON
run       an experiment, seed by seed

The page, from the results alone:

findings      estimates and the rule for a verdict
quantities    what is compared: rates, slopes, kept shares, the share of the possible
expectations  the protocol's expectations as code
claims        the rows of the table at the top
sections      the tables and plots of an experiment; regime_sections: of the regimes
page          docs/evidence.md; calls, markdown, passages, plots: what it is made with
"""
