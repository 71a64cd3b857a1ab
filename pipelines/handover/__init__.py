"""What a run hands over: a model card, a code package, an upload to the contest's host."""
