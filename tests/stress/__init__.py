"""What is long on purpose. Each has a program (``make chaos`` …) and a test that runs it in small."""
