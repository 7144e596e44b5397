"""Tests of pure functions, and of files of their own: all together take seconds. They mirror the packages."""
