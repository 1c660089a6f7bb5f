"""`taskd demo`: real work, two agents, one of them killed halfway, and a report worth reading.

`measure` is what the agents run, `report` makes of it what people read, `story` tells it.
"""
