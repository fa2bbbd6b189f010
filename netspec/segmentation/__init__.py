"""What semantic segmentation needs around a net: colours, scores, predictions, a practice set."""
