"""All that one node keeps on disk, as a whole: opened together, checked, backed up, recovered."""
