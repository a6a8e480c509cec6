"""Shrinking: from a failing run to the smallest scenario that still breaks the same invariant (design section 9).

target     what must still break, and the runs that decide whether it does, with other seeds where luck matters
fewer      passes that take away: the end of the work, faults, users, symbols, operations
simpler    passes that make plainer what is left: one of each host, plain orders at an even pace, aimed strikes
shrinker   the loop: pass after pass, until nothing can be made simpler
gallery    the smallest case of each defect of the gallery
report     the story of the smallest case, and a test that holds it
"""
