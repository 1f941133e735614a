//! The certificate authority of the mesh, behind one trait
