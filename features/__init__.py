"""Events, journeys, snapshots, labels and their representations, correct at a point in time."""
