"""Sequential students: SASRec, GRU4Rec, Caser, and the item embedding that takes the teacher in."""
