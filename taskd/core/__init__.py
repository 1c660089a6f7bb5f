"""Every rule of taskd, and the record types the rules are about.

Pure: no I/O, clock, randomness, logging, threads or wire messages. Time comes in as an argument,
what is to be done goes out as mutations and effects.
"""
