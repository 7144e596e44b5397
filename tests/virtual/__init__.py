"""Tests on a loop whose clock jumps: hours of the feed in milliseconds. They mirror the packages."""
