"""Pure functions over scores and ranks: the rank of a target, HR, NDCG, MRR."""
