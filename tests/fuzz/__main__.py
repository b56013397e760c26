from tests.fuzz.harness import KINDS, main

main(*KINDS)
