"""Depth, visual odometry and relocalization learned together (Zhao et al., IJCAI 2020)."""
