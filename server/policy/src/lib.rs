//! Who may call whom: the one intention evaluator
