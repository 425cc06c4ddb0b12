"""The figures: each module draws one from stored results (`draw`) and says what is seen in it (`caption`)."""
