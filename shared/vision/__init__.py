"""Everything that computes with torch: CLIP, UMCI, SAM, MMR, bundles, metrics; the services see numpy only."""
