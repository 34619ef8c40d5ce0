"""From verdicts to messages that reach somebody: once each, in order, and whatever channel is down.

A verdict becomes *alerts*, one per topic. An alert that stays is one *episode*: announced, counted within a cool-down,
and announced again as recovered. What is announced is a *message*, written to disk in the transaction that changes the
episodes, and delivered from there to every channel.
"""
