"""All that needs only scores: prediction frames, the OOF store, combiners, cross-fitting, thresholds."""
