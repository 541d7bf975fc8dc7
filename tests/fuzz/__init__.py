"""Random bad input, from a seed: whatever is given, the project answers rightly or refuses with one clear error.

  python -m tests.fuzz --cases=10000

Each subject draws valid arguments, spoils some of them, and checks what comes back. An answer must hold its promises, and a
refusal must be a ValueError or OSError of this project that names an argument or a file.
"""
