"""`python -m hf_mmspec` is `mmspec`: what `accelerate launch -m hf_mmspec train ...` needs. Knows no command."""

from hf_mmspec.cli import app

if __name__ == "__main__":
    app()
