"""The command line: one verb a file. Exit codes: 0 pass, 1 fail, 2 usage error, 3 inconclusive, 4 internal error,
130 interrupted.
"""
