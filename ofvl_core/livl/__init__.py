"""Recordings of a camera and a LiDAR become a data set with poses, as the paper made LIVL (Sec. 4.8)."""
