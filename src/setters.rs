//! The setters of configurations. They are not exhaustive, so other crates cannot write
//! them as literals.

/// Gives a configuration a setter for each of its fields. A field that is left out does
/// not compile.
macro_rules! setters {
    ($config:ident { $($(#[$if:meta])* $field:ident: $type:ty),+ $(,)? }) => {
        impl $config {
            $(
                $(#[$if])*
                #[doc = concat!(
                    "Sets [`", stringify!($field), "`](field@Self::", stringify!($field), ")."
                )]
                #[must_use]
                pub fn $field(mut self, $field: $type) -> Self {
                    self.$field = $field.into();
                    self
                }
            )+
        }

        const _: fn($config) = |$config { $($(#[$if])* $field: _),+ }| {};
    };
}
