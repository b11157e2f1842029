"""One room per concern; each room is a pure core and a thin actor around it."""
