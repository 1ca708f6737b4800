"""python -m irl_exp: the same as irl-exp."""

from irl_exp.cli import main

main()
