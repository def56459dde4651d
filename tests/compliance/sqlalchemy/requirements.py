"""What SQLAlchemy's suite may ask of SQLite: the same by sqlite3 here and by workers, for it is the same database.

The suite's defaults stand for all that is not named here.
"""

from __future__ import annotations

from sqlalchemy.testing import exclusions
from sqlalchemy.testing.requirements import SuiteRequirements

CAN = """
    autocommit boolean_col_expressions check_constraint_reflection computed_columns computed_columns_reflect_persisted
    computed_columns_stored computed_columns_virtual create_table_as create_temp_table_as ctes ctes_with_values
    date_historic datetime_historic datetime_literals dbapi_lastrowid emulated_lastrowid
    emulated_lastrowid_even_with_sequences except_ expression_server_defaults fetch_expression
    fetch_offset_with_options fk_constraint_option_reflection_ondelete_noaction
    fk_constraint_option_reflection_ondelete_restrict fk_constraint_option_reflection_onupdate_restrict
    float_or_double_precision_behaves_generically foreign_key_constraint_name_reflection
    foreign_key_constraint_option_reflection_ondelete foreign_key_constraint_option_reflection_onupdate
    index_ddl_if_exists indexes_check_column_order indexes_with_expressions infinity_floats
    inline_check_constraint_reflection intersect isolation_level json_array_indexes json_type
    legacy_unconditional_json_extract mod_operator_as_percent_sign non_updating_cascade nullsordering nvarchar_types
    order_by_collation order_by_label_with_expression percent_schema_names precision_numerics_enotation_small
    precision_numerics_retains_significant_digits reflect_table_options reflects_pk_names regexp_match
    repeated_column_foreign_keys repeated_remote_col_foreign_keys server_defaults skip_autocommit_rollback
    supports_bitwise_and supports_bitwise_not supports_bitwise_or supports_bitwise_shift supports_bitwise_xor
    table_ddl_if_exists tuple_in tuple_in_w_empty unicode_ddl update_from view_column_reflection view_reflection views
    window_functions window_range window_range_numeric
"""

CANNOT = """
    foreign_keys implicitly_named_constraints independent_connections json_index_supplementary_unicode_element
    nested_aggregates on_update_cascade on_update_or_deferrable_fks
"""

FAILS = """
    cast_precision_numerics_many_significant_digits numeric_received_as_decimal_untyped
    parens_in_union_contained_select_w_limit_offset parens_in_union_contained_select_wo_limit_offset
    precision_numerics_many_significant_digits
"""
"""What it is known to fail: if it succeeds, the suite fails."""

ONLY_IN_MEMORY = """
    has_temp_table temp_table_names temp_table_reflect_indexes temp_table_reflection temporary_tables temporary_views
"""
"""What needs all of an engine to be one connection."""

ONLY_IN_A_FILE = "independent_readonly_connections"


def is_in_memory(config):
    """Whether the database that is tested now is."""
    return config.db.url.database == ":memory:"


class Requirements(SuiteRequirements):
    """SQLite's."""

    def get_order_by_collation(self, config):
        """A collation that every database has."""
        return "nocase"


for names, rule in (
    (CAN, exclusions.open),
    (CANNOT, exclusions.closed),
    (FAILS, exclusions.fails),
    (ONLY_IN_MEMORY, lambda: exclusions.only_if(is_in_memory)),
    (ONLY_IN_A_FILE, lambda: exclusions.skip_if(is_in_memory)),
):
    for name in names.split():
        if not isinstance(getattr(SuiteRequirements, name), property):
            raise TypeError(f"SQLAlchemy's suite does not ask for {name!r} any more")
        setattr(Requirements, name, property(lambda self, rule=rule: rule()))
