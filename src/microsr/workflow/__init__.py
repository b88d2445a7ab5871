"""What Snakemake asks: one run an experiment, and what is said when it ends."""
