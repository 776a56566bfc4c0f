"""Contestants: `worker` is the process of each, `run_NAME` what it runs. Peers' files import NumPy and their peer only.

Each `run_NAME` has `versions()`, and `start(job)`, which returns the ways in which its framework can do the job, by
name: pairs (run, reset). `run(first, count)` does that many steps or calls, beginning with batch `first`, and returns
one number that tells whether the work was the same: the last loss, or the sum of the last outputs' sizes. `reset()`
goes back to the first weights.
"""
