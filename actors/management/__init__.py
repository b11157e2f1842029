"""Management: what operators and other nodes may ask."""
