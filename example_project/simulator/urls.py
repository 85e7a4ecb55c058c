from django.urls import path

from . import api, pages

app_name = "simulator"

urlpatterns = [
    path("MainService.svc/json/SendMultipleMessage_V4_get", api.send_multiple_message_v4_get, name="send"),
    path("MainService.svc/json/GetSendStatus", api.get_send_status, name="status"),
    path("MainService.svc/json/GetBalance_json", api.get_balance_json, name="balance"),
    path(
        "MainService.svc/json/GetListBrandname/<path:api_key>/<path:secret_key>",
        api.get_list_brandname,
        name="brandnames",
    ),
    path("MainService.svc/json/GetSmsSentData_V2", api.get_sms_sent_data_v2, name="sent"),
    path("simulator/", pages.control, name="control"),
    path("simulator/top-up/", pages.top_up, name="top-up"),
    path("simulator/empty/", pages.empty, name="empty"),
    path("phone/", pages.phones, name="phones"),
    path("phone/<slug:number>/", pages.phone, name="phone"),
    path("phone/<slug:number>/messages/", pages.phone_messages, name="phone-messages"),
]
