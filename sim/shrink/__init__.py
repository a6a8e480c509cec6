"""Shrinking: from a failing run to the smallest scenario that still breaks the same invariant (design section 9).

target     what must still break, and the run that decides whether it does
simpler    one simpler case after another, by what is taken away; each pass knows nothing of the others
shrinker   the loop: pass after pass, until nothing can be made simpler
report     the story of the smallest case, and a test that holds it
"""
