"""A deterministic simulation of the feed, its state, its output, its clocks and the exchange, from one seed.

``python -m tests.stress.storm`` draws a plan per seed (:mod:`.plan`), runs it in virtual time (:mod:`.simulation`),
compares the output with the exchange's truth after every virtual minute (:mod:`.checker`), and reduces a plan that
fails to a small one (:mod:`.shrink`).
"""
