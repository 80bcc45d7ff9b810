//! What a structural field can hold.
