"""The lessons, their examples at work (tiny.py), and the scripts that draw their pictures."""
