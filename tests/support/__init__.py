"""What several tests need. Each module says what it is for; none of them is a test."""
