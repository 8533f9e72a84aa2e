from trainbus_tabular.layout import TableLayout as TableLayout
from trainbus_tabular.plugin import TabularPlugin as TabularPlugin
