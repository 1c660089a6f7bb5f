"""The command line: words in, words out; one file for each group of commands, and no rules."""
