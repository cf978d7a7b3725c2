"""The confirmed winner of a study beside full fine-tuning, on the test rows."""
