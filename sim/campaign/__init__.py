"""Campaigns: thousands of seeds on all cores, or on a Dask cluster, judged and counted (design sections 9 and 10).

seeds     one seed, run and judged in a worker process: what comes back is small and plain
workers   where seeds run: processes of this machine, or an existing cluster
results   the results on disk, streamed to Parquet, from which a killed campaign goes on
tally     what a campaign came to: passed, failed by what broke, goals reached, invariants exercised
campaign  the loop that joins them
report    what is printed
"""
